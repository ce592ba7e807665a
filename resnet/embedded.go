package resnet

import (
	"bytes"
	_ "embed"

	"github.com/lowrank-go/lowrank/model"
)

// embedded is a ResNet-20 trained by this project on its own drawings of letters,
//
//	lowrank train --arch resnet20 --data glyphs:letters,train=100000 --epochs 6 --seed 1 -o embedded.safetensors
//
// which is all that it takes to make it again, bit for bit, on a processor with the
// same vector instructions (AVX2).
//
//go:embed embedded.safetensors
var embedded []byte

// EmbeddedData names what the embedded network was trained on.
const EmbeddedData = "glyphs:letters"

// Embedded is the network that comes with the program, a ResNet-20 that tells 26
// drawn letters apart ([EmbeddedData]).
func Embedded() (*Net, error) {
	sd, err := model.Read(bytes.NewReader(embedded), int64(len(embedded)), "embedded")
	if err != nil {
		return nil, err
	}
	return Load(sd, Options{})
}
