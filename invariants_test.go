package lowrank

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sources calls f with every Go file of the module that is not a test.
func sources(t *testing.T, f func(path string, imports []string, doc bool)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			nested := path != "." && exists(filepath.Join(path, "go.mod"))
			if nested || path != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		var imports []string
		for _, i := range file.Imports {
			imports = append(imports, strings.Trim(i.Path.Value, `"`))
		}
		f(path, imports, file.Doc != nil)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestEveryPackageHasADocComment(t *testing.T) {
	documented := map[string]bool{}
	sources(t, func(path string, _ []string, doc bool) {
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || doc
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment", dir)
		}
	}
}

// code is the file's text without whole-line comments.
func code(t *testing.T, path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "//") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestNothingUsesCgoOrTheProcessWideBLAS(t *testing.T) {
	sources(t, func(path string, imports []string, _ bool) {
		for _, i := range imports {
			if i == "C" {
				t.Errorf("%s imports C", path)
			}
		}
		text := code(t, path)
		for _, call := range []string{"blas64.Use(", "blas32.Use(", "lapack64.Use("} {
			if strings.Contains(text, call) {
				t.Errorf("%s calls %s…): importing lowrank must not change its importer", path, call)
			}
		}
	})
}

// floors is the table of docs/architecture.md: a package imports only packages on floors
// below its own.
var floors = map[string]int{
	"internal/parallel": 1, "internal/bisect": 1, "internal/match": 1, "internal/progress": 1, "internal/usage": 1, "internal/chart": 1,
	"internal/figures": 1, "internal/infile": 1, "internal/atomicfile": 1, "internal/glyphs": 1, "internal/realdata": 1, "internal/ort": 1, "internal/onnxpb": 1,
	"internal/nhwc": 1, "internal/hadamard": 1, "internal/gemm": 2, "onnx": 2, "dataset": 2,
	"internal/linalg": 3, "internal/tensorops": 3, "internal/synthetic": 3, "fastblas": 3,
	"model": 4, "conv": 4, "vbmf": 4, "cpd": 4,
	"ranks": 5, "tucker": 5, "stability": 5, "internal/nn": 5, "internal/ortest": 5,
	"tkdcpd": 6, "graph": 6,
	"compress/chains": 7, "model/factors": 7, "zoo": 7, "onnx/onnxgraph": 7, "torchmodule": 7, "eval": 7, "peft": 7,
	"zoo/letters": 8, "train": 8, "adapt": 8,
	"compress":     9,
	"onnx/rewrite": 10,
	"cmd/lowrank":  11,
}

// A file becomes named tensors, and a kernel a chain, without any decomposition: what
// numbers of floors allow is less than what these packages are for.
func TestFilesAndConvolutionsKnowNoDecompositions(t *testing.T) {
	const module = "github.com/lowrank-go/lowrank/"
	barred := map[string][]string{
		"conv":  {"vbmf", "cpd", "tucker", "stability", "tkdcpd", "model"},
		"model": {"vbmf", "cpd", "tucker", "stability", "tkdcpd", "conv", "internal/linalg", "internal/gemm"},
		"graph": {"vbmf", "cpd", "tucker", "stability", "tkdcpd"},
	}
	sources(t, func(path string, imports []string, _ bool) {
		for _, p := range barred[filepath.ToSlash(filepath.Dir(path))] {
			if slices.Contains(imports, module+p) {
				t.Errorf("%s imports %s", path, p)
			}
		}
	})
}

func TestPackagesImportOnlyPackagesBelowThem(t *testing.T) {
	const module = "github.com/lowrank-go/lowrank/"
	sources(t, func(path string, imports []string, _ bool) {
		dir := filepath.ToSlash(filepath.Dir(path))
		own, listed := floors[dir]
		for _, i := range imports {
			rest, ours := strings.CutPrefix(i, module)
			if !ours {
				continue
			}
			if !listed {
				if strings.HasPrefix(dir, "examples/") || dir == "bench" {
					continue
				}
				t.Errorf("package %s stands on no floor", dir)
				return
			}
			if below, ok := floors[rest]; !ok || below >= own {
				t.Errorf("%s, on floor %d, imports %s, on floor %d", path, own, rest, below)
			}
		}
	})
}

// gorgonia.org/tensor gives silently wrong results for sums over a middle axis
// of 4-D tensors, products of views and contractions of 4-D tensors. Nothing
// here may call its arithmetic.
func TestNothingCallsGorgoniasArithmetic(t *testing.T) {
	sources(t, func(path string, imports []string, _ bool) {
		text := code(t, path)
		for _, call := range []string{"tensor.MatMul(", "tensor.Mul(", "tensor.Add(", "tensor.Sum(", "tensor.Contract(", "tensor.Dot(", ".TensorMul(", ".MatMul("} {
			if strings.Contains(text, call) {
				t.Errorf("%s calls gorgonia's %s…)", path, call)
			}
		}
	})
}

// Who passes the program on must be able to pass on the notices of what is in it.
func TestTheNoticeNamesEveryLinkedModule(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/lowrank").Output()
	if err != nil {
		t.Skipf("no list of modules: %v", err)
	}
	notice, err := os.ReadFile("NOTICE")
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range strings.Fields(string(out)) {
		if module != "github.com/lowrank-go/lowrank" && !strings.Contains(string(notice), "  "+module+" ") {
			t.Errorf("NOTICE does not name %s", module)
		}
	}
}
