package dataset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestHoldOutOfAFolderDividesEveryClass(t *testing.T) {
	files := make(map[string][]byte)
	for class, n := range map[string]int{"a": 20, "b": 8, "c": 3} {
		for i := range n {
			files[fmt.Sprintf("%s/%02d.png", class, i)] = dot(uint8(i))
		}
	}
	dir := writeFiles(t, files)
	names := func(spec string, split Split) (names []string) {
		t.Helper()
		s, err := Open(spec, Options{Split: split})
		if err != nil {
			t.Fatal(err)
		}
		defer Close(s)
		for i := range s.Len() {
			m, label, err := s.At(i)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, fmt.Sprint(s.ClassName(label), m.Pix[0]))
		}
		return names
	}
	for _, spec := range []string{"folder:" + dir + ",holdout=0.25", "folder:" + writeZip(t, files) + ",seed=0,holdout=0.25"} {
		train, test := names(spec, Train), names(spec, Test)
		count := func(all []string) string {
			n := make(map[byte]int)
			for _, name := range all {
				n[name[0]]++
			}
			return fmt.Sprint(n['a'], n['b'], n['c'])
		}
		if count(train) != "15 6 2" || count(test) != "5 2 1" {
			t.Errorf("%s: %s and %s of the classes", spec, count(train), count(test))
		}
		all := slices.Concat(train, test)
		slices.Sort(all)
		if len(slices.Compact(all)) != 31 {
			t.Errorf("%s: the parts have something in common", spec)
		}
		if !slices.Equal(test, names(spec, Test)) {
			t.Errorf("%s: another division each time", spec)
		}
		if slices.Equal(test, names("folder:"+dir+",holdout=0.25,seed=9", Test)) {
			t.Errorf("%s: seeds make no difference", spec)
		}
	}
	s, err := Open("folder:"+dir+",holdout=0.25", Options{})
	if err != nil || s.Name() != "folder:"+dir+" (test, 0.25 of each class held out, seed 0)" {
		t.Error(s.Name(), err)
	}
}

func TestOptionsOfFoldersThatMakeNoSense(t *testing.T) {
	dir := writeFiles(t, map[string][]byte{"a/1.png": dot(1), "b/1.png": dot(1)})
	divided := writeFiles(t, map[string][]byte{"train/a/1.png": dot(1), "test/a/1.png": dot(1)})
	for spec, want := range map[string]string{
		dir + ",holdout=1":             "between 0 and 1",
		dir + ",holdout=0":             "between 0 and 1",
		dir + ",holdout=-0.5":          "between 0 and 1",
		dir + ",holdout=NaN":           "between 0 and 1",
		dir + ",holdout=x":             "between 0 and 1",
		dir + ",holdout=0.5,size=3":    `option "size=3"; want holdout=…, seed=…`,
		dir + ",holdout=0.5,":          `option ""`,
		dir + ",holdout=.5,holdout=.5": "holdout is given twice",
		dir + ",seed=-1":               "from 0 to 18446744073709551615",
		dir + ",seed=1":                "without holdout",
		divided + ",holdout=0.5":       "folders for training and testing",
		dir + ",size=3":                "no such file",
	} {
		s, err := Open("folder:"+spec, Options{})
		if s != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", spec, err)
		}
		if !strings.HasSuffix(spec, "size=3") && !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v", spec, err)
		}
	}
	if _, err := Open("folder:"+dir+",holdout=0.1", Options{}); !errors.Is(err, ErrEmpty) {
		t.Error(err)
	}
}

func TestAPathThatExistsHasNoOptions(t *testing.T) {
	dir := writeFiles(t, map[string][]byte{"x,holdout=0.5/a/1.png": dot(1), "x,holdout=0.5/a/2.png": dot(1)})
	s, err := Open("folder:"+filepath.Join(dir, "x,holdout=0.5"), Options{})
	if err != nil || s.Len() != 2 {
		t.Error(err)
	}
	s, err = Open("folder:"+filepath.Join(dir, "x,holdout=0.5,holdout=0.5"), Options{})
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrSpec) {
		t.Error(s, err)
	}
}

func TestHoldOutOfOmniglotLeavesSomeOfEveryCharacter(t *testing.T) {
	path := realData(t, "omniglot/images_background_small1.zip")
	seen := make(map[string]bool)
	for split, n := range map[Split]int{Train: 15, Test: 5} {
		s, err := Open("folder:"+path+",holdout=0.25", Options{Split: split})
		if err != nil {
			t.Fatal(err)
		}
		if got := countByClass(t, s); !slices.Equal(got, slices.Repeat([]int{n}, 136)) {
			t.Errorf("%s: %v", s.Name(), got)
		}
		sub := s.(*subset)
		for _, i := range sub.indices {
			file := sub.Set.(*folderSet).files[i]
			if seen[file] {
				t.Errorf("%s is in both parts", file)
			}
			seen[file] = true
		}
		if _, label, err := s.At(s.Len() - 1); err != nil || label != 135 {
			t.Error(label, err)
		}
		Close(s)
	}
	if len(seen) != 136*20 {
		t.Errorf("%d drawings", len(seen))
	}
}

func TestOptionsAreReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, s := rapid.IntRange(3, 1000).Draw(t, "n"), rapid.Uint64().Draw(t, "seed")
		var gotN int
		var gotS uint64
		o := options{"n": number(&gotN, 3, 1000), "seed": seed(&gotS)}
		parts := rapid.Permutation([]string{fmt.Sprint("n=", n), fmt.Sprint("seed=", s)}).Draw(t, "order")
		path := rapid.StringMatching(`[a-z=,]{0,9}/[a-m=,]{0,9}`).Draw(t, "path")
		got, rest, any := o.cut(path + "," + strings.Join(parts, ","))
		if strings.Contains(path, ",n=") {
			return
		}
		if got != path || !any {
			t.Fatalf("path %q, then %q", got, rest)
		}
		if err := o.parse(rest); err != nil || gotN != n || gotS != s {
			t.Fatal(gotN, gotS, err)
		}
	})
}

func FuzzOpenGlyphs(f *testing.F) {
	for _, spec := range []string{"letters", "segments,seed=3", "digits,train=1,test=2", "shapes,", ",", "textures,seed=1,seed=1", "x=y"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := Open("glyphs:"+spec, Options{Split: Train, Limit: 5})
		if err != nil {
			if !errors.Is(err, ErrSpec) {
				t.Fatal(err)
			}
			return
		}
		if n := s.Len(); n < 1 || n > 5 {
			t.Fatalf("%d images", n)
		}
		if _, label, err := s.At(0); err != nil || label < 0 || label >= s.Classes() {
			t.Fatal(label, err)
		}
	})
}
