package model

import (
	"fmt"
	"math/big"
	"strings"
	"unicode"
)

// The values that an unpickler makes: nil, bool, int64, *big.Int, float64,
// string, []byte, and these.
type (
	pyTuple []any
	pyList  struct{ items []any }
	pySet   struct{ items []any }
	pyDict  struct{ keys, values []any } // in insertion order; a key may repeat, the last counts
	// pyGlobal is a global by its name. It stands for nothing that could be run.
	pyGlobal struct{ module, name string }
	// pyObject stands for what a pickle would have built by calling something that this
	// package does not know. The call never happens.
	pyObject struct {
		class string
		// items is what was put into it as into a dict, nil if nothing was.
		items *pyDict
		// state is what would have become its attributes.
		state any
	}
	// pyDtype is a numpy.dtype: its code without the order of bytes, such as "f4".
	pyDtype struct {
		code string
		big  bool
	}
	// pyArray is an array of NumPy's.
	pyArray struct {
		dtype   *pyDtype
		shape   []int
		fortran bool
		raw     []byte
	}
	// pyStorage is a reference to numbers stored elsewhere in the file.
	pyStorage struct {
		dtype DType  // "" for untyped bytes and for what is not read
		class string // torch's
		key   string
		numel int
		first int // element that a view starts at, in the legacy format
		// inner, where not nil, are the storages that it lies in, not the file's.
		inner *legacyStorages
	}
	// pyTensor is a strided view of a storage.
	pyTensor struct {
		storage      *pyStorage
		dtype        DType
		offset       int
		size, stride []int
	}
	// pyUnread is a tensor of a kind that is not read.
	pyUnread struct{ what string }
	pyMark   struct{}
	pyGap    struct{} // where the memo has nothing
)

func (g pyGlobal) String() string { return g.module + "." + g.name }

// get returns the value of a key, the last where it repeats, and nil where there is none.
func (d *pyDict) get(key string) any {
	for i := len(d.keys) - 1; i >= 0; i-- {
		if s, ok := d.keys[i].(string); ok && s == key {
			return d.values[i]
		}
	}
	return nil
}

// asDict is v where it is a dict, the items of an object that was filled as one, or else
// its attributes, and nil for anything else and for modules.
func asDict(v any) *pyDict {
	switch v := v.(type) {
	case *pyDict:
		return v
	case *pyObject:
		if v.items != nil {
			return v.items
		}
		if d, ok := v.state.(*pyDict); ok && !v.isModule() {
			return d
		}
	}
	return nil
}

// isModule reports whether the object is an nn.Module, by the attributes that all have.
func (o *pyObject) isModule() bool {
	d, ok := o.state.(*pyDict)
	if !ok {
		return strings.HasPrefix(o.class, "__torch__.")
	}
	_, params := d.get("_parameters").(*pyDict)
	_, modules := d.get("_modules").(*pyDict)
	return params || modules || strings.HasPrefix(o.class, "__torch__.")
}

// describe names a value for an error, in few words.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case pyGlobal:
		return quoted(v.String())
	case string:
		return "the string " + quoted(v)
	case pyTuple:
		return fmt.Sprintf("a tuple of %d", len(v))
	case *pyList:
		return "a list"
	case *pyDict:
		return "a dict"
	case *pySet:
		return "a set"
	case *pyTensor:
		return "a tensor"
	case *pyStorage:
		return "a storage"
	case *pyObject:
		return "an object of " + quoted(v.class)
	case *pyArray:
		return "an array of NumPy's"
	case pyUnread:
		return v.what
	case *pyDtype:
		return "a numpy.dtype"
	case []byte:
		return "bytes"
	case *big.Int:
		return "a large integer"
	default:
		return fmt.Sprint(v) // bool, int64, float64
	}
}

// quoted is a name out of a file, for messages: short, without control characters.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%.*q…", most, s)
	}
	return fmt.Sprintf("%q", s)
}

// visible is a name as it is, or quoted where it is long or has control characters.
func visible(s string) string {
	if len(s) <= 80 && !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	return quoted(s)
}
