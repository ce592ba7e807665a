package torchmodule

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// Files are what Write puts into a folder.
var Files = []string{"module.py", "model.safetensors", "model.pt", "preprocess.json", "train.py"}

// Write writes the network to a folder, which must not be there or be empty: the module,
// its weights as safetensors and as a PyTorch file, how images become inputs, and a script
// that trains it on. The folder is there completely or not at all.
func Write(dir string, g *graph.Graph) error {
	source, err := Source(g)
	if err != nil {
		return err
	}
	sd, err := weights(g)
	if err != nil {
		return err
	}
	pre, err := json.MarshalIndent(g.Preprocess, "", "  ")
	if err != nil {
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	tmp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	for name, text := range map[string]string{"module.py": source, "preprocess.json": string(pre) + "\n", "train.py": trainScript(g)} {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o666); err != nil {
			return err
		}
	}
	if err := model.WriteSafetensors(filepath.Join(tmp, "model.safetensors"), sd); err != nil {
		return err
	}
	if err := model.WriteTorch(filepath.Join(tmp, "model.pt"), sd); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// weights is the network's state dict with what PyTorch's batch norms have beside.
func weights(g *graph.Graph) (*model.StateDict, error) {
	sd, err := g.StateDict()
	if err != nil {
		return nil, err
	}
	for _, n := range g.Nodes {
		if m := n.BatchNorm(); m != nil && m.Batches == nil {
			sd.Set(n.Name+".num_batches_tracked", &model.Tensor{Data: []int64{0}})
		}
	}
	return sd, nil
}
