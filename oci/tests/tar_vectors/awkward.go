// The archive of `entries_that_need_records_have_the_bytes_of_their_language` as Go writes it.
//
// Prints its SHA-256 and size: go run awkward.go
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
)

func main() {
	link := strings.Repeat("l", 101)
	splittable := "/store/" + strings.Repeat("d", 60) + "/" + strings.Repeat("n", 60)
	unsplittable := "/store/" + strings.Repeat("m", 120)
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, header := range []tar.Header{
		{Name: "/store", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "/store/a", Typeflag: tar.TypeReg, Uid: 3_000_000, Gid: 1 << 40},
		{Name: "/store/b", Typeflag: tar.TypeReg, Uname: strings.Repeat("u", 33), Gname: "g\u00e9"},
		{Name: "/store/" + strings.Repeat("d", 60), Typeflag: tar.TypeDir},
		{Name: splittable, Typeflag: tar.TypeSymlink, Linkname: link},
		{Name: unsplittable, Typeflag: tar.TypeDir, Uid: 3_000_000},
		{Name: "/store/n" + strings.Repeat("\u00e9", 60), Typeflag: tar.TypeDir},
		{Name: "/store/" + strings.Repeat("o", 93), Typeflag: tar.TypeDir},
		{Name: "/store/" + strings.Repeat("p", 92) + "/\u00e9x", Typeflag: tar.TypeReg},
		{Name: "/store/\u20ac\xe2\x82z\xff", Typeflag: tar.TypeSymlink, Linkname: "\u00e9"},
	} {
		header.ModTime = time.Unix(1, 0)
		if header.Mode == 0 {
			header.Mode = 0o644
		}
		if header.Uname == "" {
			header.Uname, header.Gname = "root", "root"
		}
		if err := writer.WriteHeader(&header); err != nil {
			panic(err)
		}
	}
	if err := writer.Close(); err != nil {
		panic(err)
	}
	fmt.Printf("%x %d\n", sha256.Sum256(out.Bytes()), out.Len())
}
