package model

import (
	"fmt"
	"strings"
)

// ManifestKey is the metadata key, in a safetensors file's __metadata__, under which this
// program describes the network that the tensors belong to; package graph reads and writes
// the description.
const ManifestKey = "lowrank"

// Source says where in a file a state dict was found, and what of the file is not in it.
// Its zero value is that of a file that is one state dict and nothing else.
type Source struct {
	// Key is where the state dict lay in a checkpoint, keys with dots between; empty
	// where it was the checkpoint itself.
	Key string `json:"key,omitempty"`
	// Prefix is what was taken off the names, such as "module.".
	Prefix string `json:"prefix,omitempty"`
	// Others are the other state dicts of the file, such as an average of the weights,
	// which [ReadOptions] can choose.
	Others []Other `json:"others,omitempty"`
	// Beside lists what else the checkpoint had, by its keys.
	Beside []string `json:"beside,omitempty"`
	// LeftOut are the tensors that are not in the state dict.
	LeftOut []LeftOut `json:"left_out,omitempty"`
}

// Other is a state dict that was not read.
type Other struct {
	// Key chooses it by ReadOptions.Key; Prefix, where Key is that of the state dict
	// that was read, by ReadOptions.Prefix.
	Key     string `json:"key,omitempty"`
	Prefix  string `json:"prefix,omitempty"`
	Tensors int    `json:"tensors"`
}

// LeftOut is a tensor that is not in a state dict.
type LeftOut struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// LeaveOut removes the tensor called name, if there is one, and notes why in the Source.
func (sd *StateDict) LeaveOut(name, reason string) {
	sd.Delete(name)
	sd.Source.LeftOut = append(sd.Source.LeftOut, LeftOut{name, reason})
}

// IsZero reports whether there is nothing to tell.
func (s Source) IsZero() bool {
	return s.Key == "" && s.Prefix == "" && len(s.Others) == 0 && len(s.Beside) == 0 && len(s.LeftOut) == 0
}

// Lines tells s to people, a line for each fact, none where there is nothing to tell.
func (s Source) Lines() []string {
	var lines []string
	some := func(names []string) string {
		const most = 4
		n := len(names)
		if n > most {
			names = append(names[:most:most], fmt.Sprintf("%d more", n-most))
		}
		return strings.Join(names, ", ")
	}
	var read []string
	if s.Key != "" {
		read = append(read, "from the key "+quoted(s.Key))
	}
	if s.Prefix != "" {
		read = append(read, quoted(s.Prefix)+" taken off the names")
	}
	if len(read) > 0 {
		lines = append(lines, "read "+strings.Join(read, ", "))
	}
	var others []string
	for _, o := range s.Others {
		if o.Prefix != "" {
			others = append(others, fmt.Sprintf("%s (%d tensors, --prefix %s)", quoted(o.Prefix), o.Tensors, quoted(o.Prefix)))
		} else {
			others = append(others, fmt.Sprintf("%s (%d tensors, --key %s)", quoted(o.Key), o.Tensors, quoted(o.Key)))
		}
	}
	if len(others) > 0 {
		lines = append(lines, "also in the file, not read: "+some(others))
	}
	reasons := map[string][]string{}
	var order []string
	for _, l := range s.LeftOut {
		if reasons[l.Reason] == nil {
			order = append(order, l.Reason)
		}
		reasons[l.Reason] = append(reasons[l.Reason], quoted(l.Name))
	}
	for _, r := range order {
		lines = append(lines, fmt.Sprintf("left out: %s (%s)", some(reasons[r]), r))
	}
	return lines
}
