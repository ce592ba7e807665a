package dataset_test

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"
	"os"
	"path/filepath"

	"github.com/lowrank-go/lowrank/dataset"
)

// folders makes a data set of two classes, with three images of 8×8 each.
func folders() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "example"); err != nil {
		return "", err
	}
	for i, class := range []string{"dark", "light"} {
		if err := os.Mkdir(filepath.Join(dir, class), 0o755); err != nil {
			return dir, err
		}
		m := image.NewGray(image.Rect(0, 0, 8, 8))
		for p := range m.Pix {
			m.Pix[p] = color.Gray{Y: uint8(51 + 102*i)}.Y
		}
		for j := range 3 {
			f, err := os.Create(filepath.Join(dir, class, fmt.Sprint(j, ".png")))
			if err != nil {
				return dir, err
			}
			if err := png.Encode(f, m); err != nil {
				return dir, err
			}
			if err := f.Close(); err != nil {
				return dir, err
			}
		}
	}
	return dir, nil
}

func Example() {
	dir, err := folders()
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	set, err := dataset.Open("folder:"+dir, dataset.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer dataset.Close(set)
	fmt.Println(set.Len(), "images,", set.Classes(), "classes")

	p := dataset.Preprocess{Resize: 4, Crop: [2]int{4, 4}}
	for b, err := range dataset.Batches(context.Background(), set, p, 4, 0) {
		if err != nil {
			log.Fatal(err)
		}
		for i, label := range b.Labels {
			fmt.Println(b.First+i, set.ClassName(label), b.X[i*b.H*b.W*3])
		}
	}
	// Output:
	// 6 images, 2 classes
	// 0 dark 0.2
	// 1 dark 0.2
	// 2 dark 0.2
	// 3 light 0.6
	// 4 light 0.6
	// 5 light 0.6
}

func ExampleHoldOut() {
	dir, err := folders()
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	set, err := dataset.Open(dir, dataset.Options{})
	if err != nil {
		log.Fatal(err)
	}
	train, validate, err := dataset.HoldOut(set, 1.0/3, 1)
	if err != nil {
		log.Fatal(err)
	}
	labels, err := dataset.Labels(validate)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(train.Len(), "to train on,", validate.Len(), "to validate on, of classes", labels)
	// Output: 4 to train on, 2 to validate on, of classes [0 1]
}

func ExamplePreprocess() {
	text, err := json.Marshal(dataset.ImageNet)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
	w, h, err := dataset.ImageNet.Size(500, 375)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(w, h)
	// Output:
	// {"resize":256,"crop":[224,224],"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}
	// 224 224
}
