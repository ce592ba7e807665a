// Command glyphs draws a contact sheet of every task of the drawn images: a PNG
// file each, with a column a class and, for segments, the mask under each image.
//
//	go run ./examples/glyphs DIR
package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"
	"os"
	"path/filepath"

	"github.com/lowrank-go/lowrank/dataset"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: glyphs DIR")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, task := range []string{"letters", "lowercase", "digits", "shapes", "textures", "inverted", "segments"} {
		set, err := dataset.Open("glyphs:"+task, dataset.Options{Split: dataset.Train})
		if err != nil {
			return err
		}
		m, err := sheet(set)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, task+".png")
		if err := write(path, m); err != nil {
			return err
		}
		fmt.Printf("%s: %d of %d images, %d classes\n", path, rows*columns(set), set.Len(), set.Classes())
	}
	return nil
}

const (
	rows  = 10
	scale = 2
	// cell is the side of an image and its margin.
	cell = (32 + 1) * scale
)

func columns(s dataset.Set) int {
	if _, ok := s.(dataset.Segmented); ok {
		return 20
	}
	return s.Classes()
}

// sheet has the first images of a set, row by row.
func sheet(s dataset.Set) (image.Image, error) {
	cols := columns(s)
	masks, segmented := s.(dataset.Segmented)
	high := cell
	if segmented {
		high *= 2
	}
	out := image.NewRGBA(image.Rect(0, 0, cols*cell, rows*high))
	for i := range rows * cols {
		x, y := i%cols*cell, i/cols*high
		m, _, err := s.At(i)
		if err != nil {
			return nil, err
		}
		draw(out, x, y, m.W, m.H, func(p int) color.RGBA {
			return color.RGBA{R: m.Pix[3*p], G: m.Pix[3*p+1], B: m.Pix[3*p+2], A: 255}
		})
		if !segmented {
			continue
		}
		mask, err := masks.MaskAt(i)
		if err != nil {
			return nil, err
		}
		colours := []color.RGBA{{A: 255}, {R: 230, G: 80, B: 60, A: 255}, {R: 80, G: 190, B: 90, A: 255}, {R: 80, G: 110, B: 240, A: 255}}
		draw(out, x, y+cell, mask.W, mask.H, func(p int) color.RGBA { return colours[mask.Class[p]] })
	}
	return out, nil
}

// draw enlarges an image.
func draw(out *image.RGBA, x, y, w, h int, at func(pixel int) color.RGBA) {
	for v := range h * scale {
		for u := range w * scale {
			out.SetRGBA(x+u, y+v, at(v/scale*w+u/scale))
		}
	}
}

func write(path string, m image.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := png.Encode(f, m); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
