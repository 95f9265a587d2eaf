// Command gitd serves bare Git repositories over smart HTTP and TLS with Git's own
// http-backend. What a repository allows follows from its path:
//
//	/NAME.git             anyone may read and push
//	/private/NAME.git     only with the password
//	/nofilter/NAME.git    no partial clones (uploadpack.allowFilter is off)
//
// The folders combine (/private/nofilter/NAME.git). A repository comes into being with the
// first push to it. Each request is one line on standard output.
package main

import (
	"bytes"
	"crypto/subtle"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxBody bounds a push that comes in chunks, which must be held in memory.
const maxBody = 256 << 20

type server struct {
	root           string
	user, password string
	creating       sync.Mutex
}

func main() {
	log.SetFlags(0)
	addr := flag.String("addr", ":8443", "listen address")
	root := flag.String("root", "/srv/git", "directory of the repositories")
	cert := flag.String("cert", "", "PEM file of the certificate")
	key := flag.String("key", "", "PEM file of its key")
	user := flag.String("user", "", "user name that /private demands")
	passwordFile := flag.String("password-file", "", "file of the password that /private demands")
	flag.Parse()
	password, err := os.ReadFile(*passwordFile)
	if err != nil {
		log.Fatalf("read the password: %v", err)
	}
	s := &server{root: *root, user: *user, password: strings.TrimSpace(string(password))}
	if s.user == "" || s.password == "" {
		log.Fatal("-user and a password that is not empty are needed")
	}
	// HTTP/1.1 only: of 72 pushes of 10 MB by git 2.39 with curl 7.88.1 over HTTP/2, 4 arrived damaged.
	server := &http.Server{Addr: *addr, Handler: logged(s), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		return
	}
	repository, ok := repositoryOf(r.URL.Path)
	if !ok {
		http.Error(w, "no such repository: names end in .git", http.StatusNotFound)
		return
	}
	folders := strings.Split(path.Dir(repository), "/")
	if slices.Contains(folders, "private") && !s.authorised(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "user name and password are needed", http.StatusUnauthorized)
		return
	}
	if r.URL.Query().Get("service") == "git-receive-pack" {
		if err := s.create(repository); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	// CGI has no chunked bodies, and Git chunks every push above 1 MiB.
	if r.ContentLength < 0 {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	}
	s.backend(!slices.Contains(folders, "nofilter")).ServeHTTP(w, r)
}

// repositoryOf cuts a request's path behind the first part that ends in .git.
func repositoryOf(request string) (string, bool) {
	parts := strings.Split(strings.TrimPrefix(path.Clean("/"+request), "/"), "/")
	for i, part := range parts {
		if len(part) > len(".git") && strings.HasSuffix(part, ".git") {
			return strings.Join(parts[:i+1], "/"), true
		}
	}
	return "", false
}

func (s *server) authorised(r *http.Request) bool {
	user, password, _ := r.BasicAuth()
	return subtle.ConstantTimeCompare([]byte(user+":"+password), []byte(s.user+":"+s.password)) == 1
}

func (s *server) create(repository string) error {
	s.creating.Lock()
	defer s.creating.Unlock()
	directory := filepath.Join(s.root, repository)
	if _, err := os.Stat(directory); err == nil {
		return nil
	}
	out, err := exec.Command("git", "init", "--quiet", "--bare", "--initial-branch=main", directory).CombinedOutput()
	if err != nil {
		return fmt.Errorf("create %s: %w: %s", repository, err, out)
	}
	return nil
}

// backend answers one request. Settings go by environment, so that repositories need none.
func (s *server) backend(filter bool) http.Handler {
	settings := [][2]string{
		{"safe.directory", "*"},
		{"uploadpack.allowAnySHA1InWant", "true"},
		{"uploadpack.allowFilter", fmt.Sprint(filter)},
	}
	env := []string{
		"GIT_PROJECT_ROOT=" + s.root, "GIT_HTTP_EXPORT_ALL=1", "HOME=/tmp",
		"REMOTE_USER=git", // a name is what makes http-backend accept pushes
		fmt.Sprint("GIT_CONFIG_COUNT=", len(settings)),
	}
	for i, setting := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, setting[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, setting[1]))
	}
	return &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: env, Stderr: os.Stderr}
}

// logged writes a line per request: time, user, method, path, status, bytes sent. Health checks are left out.
func logged(next http.Handler) http.Handler {
	out := log.New(os.Stdout, "", 0)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted := &counter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(counted, r)
		if r.URL.Path == "/healthz" {
			return
		}
		user, _, ok := r.BasicAuth()
		if !ok {
			user = "-"
		}
		out.Printf("%s %q %s %q %d %d", time.Now().UTC().Format(time.RFC3339Nano), user, r.Method, r.URL.RequestURI(), counted.status, counted.bytes)
	})
}

type counter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes += int64(n)
	return n, err
}
