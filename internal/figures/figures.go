// Package figures writes reports as JSON, in which a figure that is not finite is null:
// JSON has no word for it, and encoding/json fails where it meets one.
package figures

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Encode writes v as one line of JSON, as encoding/json does but for figures that are
// not finite. Of its tags it knows names, omitempty and "-".
func Encode(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	var unsupported *json.UnsupportedValueError
	if errors.As(err, &unsupported) {
		b.Reset()
		if err = value(&b, reflect.ValueOf(v)); err == nil {
			b.WriteByte('\n')
		}
	}
	if err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

// value writes a value.
func value(b *bytes.Buffer, v reflect.Value) error {
	if !v.IsValid() {
		b.WriteString("null")
		return nil
	}
	if v.CanInterface() {
		if _, ok := v.Interface().(json.Marshaler); ok {
			return plain(b, v)
		}
	}
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			b.WriteString("null")
			return nil
		}
	case reflect.Pointer, reflect.Interface:
		return value(b, v.Elem())
	case reflect.Struct:
		b.WriteByte('{')
		if err := fields(b, v); err != nil {
			return err
		}
		b.WriteByte('}')
		return nil
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && (v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8) {
			break
		}
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := value(b, v.Index(i)); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	case reflect.Map:
		if v.IsNil() || v.Type().Key().Kind() != reflect.String {
			break
		}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := named(b, k.String(), v.MapIndex(k)); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	}
	return plain(b, v)
}

// fields writes the fields of a struct, those of embedded structs among them.
func fields(b *bytes.Buffer, v reflect.Value) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		empty := v.Field(i).IsZero()
		if k := f.Type.Kind(); k == reflect.Slice || k == reflect.Map {
			empty = v.Field(i).Len() == 0
		}
		switch {
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			if err := fields(b, v.Field(i)); err != nil {
				return err
			}
			continue
		case !f.IsExported() || name == "-" && options == "" || empty && f.Type.Kind() != reflect.Struct && slices.Contains(strings.Split(options, ","), "omitempty"):
			continue
		case name == "":
			name = f.Name
		}
		if c := b.Bytes(); c[len(c)-1] != '{' {
			b.WriteByte(',')
		}
		if err := named(b, name, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// named writes a key and its value.
func named(b *bytes.Buffer, key string, v reflect.Value) error {
	if err := plain(b, reflect.ValueOf(key)); err != nil {
		return err
	}
	b.WriteByte(':')
	return value(b, v)
}

// plain writes what encoding/json writes.
func plain(b *bytes.Buffer, v reflect.Value) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v.Interface()); err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	b.Truncate(b.Len() - 1) // the new line
	return nil
}
