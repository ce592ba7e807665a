// Package letters holds the network that comes with the program, a ResNet-20 that tells
// drawn letters apart.
package letters

import (
	"bytes"
	_ "embed"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/zoo"
)

// embedded is a ResNet-20 trained by this project on its own drawings of letters,
//
//	lowrank train --arch resnet20 --data glyphs:letters,train=100000 --epochs 6 --seed 1 -o letters.safetensors
//
// which is all that it takes to make it again, bit for bit, on a processor with
// vector instructions (AVX2 or AVX-512, which add in the same order).
//
//go:embed letters.safetensors
var embedded []byte

// Data names what the embedded network was trained on.
const Data = "glyphs:letters"

// Net is the network that comes with the program, a ResNet-20 that tells 26
// drawn letters apart ([Data]).
func Net() (*graph.Graph, error) {
	sd, err := model.Read(bytes.NewReader(embedded), int64(len(embedded)), "embedded")
	if err != nil {
		return nil, err
	}
	return zoo.Load(sd, zoo.Options{})
}
