package main

import "testing"

func TestARepositoryEndsInGit(t *testing.T) {
	for request, want := range map[string]string{
		"/a.git/info/refs":                  "a.git",
		"/private/nofilter/a.git/HEAD":      "private/nofilter/a.git",
		"/private/../a.git/git-upload-pack": "a.git",
		"//private//a.git/git-receive-pack": "private/a.git",
		"/../../etc/passwd":                 "",
		"/.git/config":                      "",
		"/a/info/refs":                      "",
		"/a.git/objects/b.git/info":         "a.git",
	} {
		got, ok := repositoryOf(request)
		if got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v", request, got, ok)
		}
	}
}
