package torchmodule

import (
	"fmt"
	"strconv"
	"strings"
)

// branch is a module and what lies under its name.
type branch struct {
	name     string
	layer    string // what makes it, "" for a container
	children []*branch
}

// child is the branch called name, which is made where there is none.
func (b *branch) child(name string) *branch {
	for _, c := range b.children {
		if c.name == name {
			return c
		}
	}
	c := &branch{name: name}
	b.children = append(b.children, c)
	return c
}

// put gives the module of a dotted name its layer.
func (b *branch) put(name, layer string) {
	for part := range strings.SplitSeq(name, ".") {
		b = b.child(part)
	}
	b.layer = layer
}

// list tells whether the children are 0, 1, 2 and so on, in order.
func (b *branch) list() bool {
	for i, c := range b.children {
		if c.name != strconv.Itoa(i) {
			return false
		}
	}
	return len(b.children) > 0
}

// identifier tells whether a name can be an attribute in Python.
func identifier(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != "" && !keywords[name]
}

var keywords = map[string]bool{}

func init() {
	for _, k := range strings.Fields("False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield") {
		keywords[k] = true
	}
	// Names of torch.nn.Module's own that a child must not take.
	for _, k := range strings.Fields("forward training parameters modules children buffers train eval to type float half double register_buffer state_dict load_state_dict") {
		keywords[k] = true
	}
}

// access is how a program reaches the module of a dotted name from the network.
func (b *branch) access(name string) string {
	s := "self"
	for part := range strings.SplitSeq(name, ".") {
		next := b.child(part)
		switch {
		case b.layer == "" && b.list() && s != "self":
			s += "[" + part + "]"
		case identifier(part):
			s += "." + part
		default:
			s = fmt.Sprintf("getattr(%s, %q)", s, part)
		}
		b = next
	}
	return s
}

// code is the expression that makes a container or a layer, with lines indented so deep.
func (b *branch) code(indent string) string {
	if len(b.children) == 0 {
		return b.layer
	}
	inner := indent + "    "
	var s strings.Builder
	if b.layer == "" && b.list() {
		s.WriteString("nn.ModuleList([\n")
		for _, c := range b.children {
			s.WriteString(inner + c.code(inner) + ",\n")
		}
		s.WriteString(indent + "])")
		return s.String()
	}
	s.WriteString("Group(")
	if b.layer != "" {
		s.WriteString(b.layer + ", ")
	}
	plain := true
	for _, c := range b.children {
		plain = plain && identifier(c.name)
	}
	if plain {
		s.WriteString("\n")
		for _, c := range b.children {
			s.WriteString(inner + c.name + "=" + c.code(inner) + ",\n")
		}
		s.WriteString(indent + ")")
		return s.String()
	}
	s.WriteString("**{\n")
	for _, c := range b.children {
		s.WriteString(inner + strconv.Quote(c.name) + ": " + c.code(inner) + ",\n")
	}
	s.WriteString(indent + "})")
	return s.String()
}
