package resnet

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/lowrank-go/lowrank/model"
)

// Extension is what a task makes of a network beside new values for its tensors.
type Extension struct {
	// Modules are added, by the names of their units, which must have none so far.
	Modules map[string][]ModuleSpec `json:"modules,omitempty"`
	// Dilate, where not nil, makes a classifier a segmentation network of which that many
	// stages dilate; see Net.SetSegmentation.
	Dilate *int `json:"dilate,omitempty"`
}

// Extend puts an extension into the description of the network in a state dict that
// Net.StateDict wrote. The tensors that it needs are or will be there; those of a
// classifier's head, which it replaces, are taken out. Load tells whether it makes sense.
func Extend(sd *model.StateDict, e Extension) error {
	if len(e.Modules) == 0 && e.Dilate == nil {
		return nil
	}
	manifest, err := model.ReadManifest(sd)
	if err != nil {
		return err
	}
	if manifest == nil || manifest.Network == nil {
		return fmt.Errorf("%w: the file does not describe its network, which is to be extended", ErrUnknown)
	}
	var d description
	if err := json.Unmarshal(manifest.Network, &d); err != nil {
		return fmt.Errorf("resnet: the file's network description: %w", err)
	}
	if d.Modules == nil {
		d.Modules = map[string][]ModuleSpec{}
	}
	for unit, specs := range e.Modules {
		if len(d.Modules[unit]) > 0 {
			return fmt.Errorf("%w: %s has modules already", ErrUnknown, unit)
		}
		d.Modules[unit] = specs
	}
	if e.Dilate != nil {
		if d.Segment {
			return fmt.Errorf("%w: %s is a segmentation network already", ErrUnknown, d.Arch)
		}
		d.Segment, d.Dilate = true, *e.Dilate
		for _, head := range []string{"fc", "linear"} {
			delete(manifest.Chains, head)
			for _, name := range sd.Names() {
				if strings.HasPrefix(name, head+".") {
					sd.Delete(name)
				}
			}
		}
	}
	if manifest.Network, err = json.Marshal(d); err != nil {
		return err
	}
	return manifest.Write(sd)
}
