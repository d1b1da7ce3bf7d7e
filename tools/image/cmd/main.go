// Image builds the container image: an OCI layout for both architectures, an
// archive for each that docker, containerd and podman load, and their SBOMs.
//
//	go run ./tools/image/cmd -out bin
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/sluice-net/sluice/tools/image"
)

func main() {
	o := image.Default(".", "bin")
	flag.StringVar(&o.Source, "source", o.Source, "root of the source tree")
	flag.StringVar(&o.Out, "out", o.Out, "folder for the image")
	flag.StringVar(&o.Name, "name", o.Name, "name of the image in archives")
	flag.BoolVar(&o.Stamp, "stamp", o.Stamp, "record the commit; needs a git repository")
	arches := flag.String("arch", strings.Join(o.Arches, ","), "architectures")
	flag.Parse()
	o.Arches = strings.Split(*arches, ",")
	r, err := image.Build(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "version", r.Version, "in", r.Layout)
	for _, arch := range o.Arches {
		fmt.Fprintln(os.Stderr, r.Archives[arch])
	}
	fmt.Println(r.Index)
}
