package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// Sum is the SHA-256, in hexadecimal, of all that sd holds, but for the metadata under the
// keys but: the names, types, shapes and elements of the tensors, sorted by name, and the
// other metadata.
func (sd *StateDict) Sum(but ...string) (string, error) {
	h := sha256.New()
	for _, name := range slices.Sorted(slices.Values(sd.names)) {
		t := sd.tensors[name]
		fmt.Fprintf(h, "%q %s %v\n", name, t.FileType(), t.Shape)
		if err := t.writeAs(h, t.FileType()); err != nil {
			return "", fmt.Errorf("tensor %s: %w", quoted(name), err)
		}
	}
	keys := make([]string, 0, len(sd.Meta))
	for k := range sd.Meta {
		if !slices.Contains(but, k) && k != "format" && k != orderKey { // the format's own
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(h, "%q %q\n", k, sd.Meta[k])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
