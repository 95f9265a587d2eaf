// Prints the digest of the config that nix2container's skopeo makes of an image.json. To be built
// within the repository of nix2container, whose package it calls.
package main

import (
	"fmt"
	"os"

	"github.com/nlewo/nix2container/nix"
)

func main() {
	image, err := nix.NewImageFromFile(os.Args[1])
	if err == nil {
		digest, _, failed := nix.GetConfigDigest(image)
		fmt.Println(digest)
		err = failed
	}
	if err != nil {
		panic(err)
	}
}
