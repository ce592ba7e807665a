package graph_test

import (
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
)

// A network is put together node by node, printed, edited and run.
func ExampleGraph_String() {
	g := &graph.Graph{Arch: "tiny", Input: graph.Shape{3, 8, 8}}
	x := g.Add("input", &graph.Input{Size: g.Input})
	pad := conv.Geometry{Padding: [2]int{1, 1}}
	x = g.Add("conv1", &graph.Conv{Chain: graph.NewConv([4]int{16, 3, 3, 3}, pad, false)}, x)
	x = g.Add("bn1", graph.NewBatchNorm(16), x)
	x = g.Add("relu", &graph.Activation{Name: graph.ReLU}, x)
	x = g.Add("avgpool", graph.GlobalAverage(), x)
	x = g.Add("flatten", &graph.Flatten{}, x)
	x = g.Add("fc", &graph.Conv{Chain: graph.NewConv([4]int{10, 16, 1, 1}, conv.Geometry{}, true), Linear: true}, x)
	g.Outputs, g.Head = []*graph.Node{x}, x
	if err := g.Validate(); err != nil {
		fmt.Println(err)
	}
	fmt.Print(g)
	// Output:
	// input   = input()                       # 3×8×8
	// conv1   = conv(input, 3×3 3→16 pad 1)   # 16×8×8
	// bn1     = batchnorm(conv1)              # 16×8×8
	// relu    = relu(bn1)                     # 16×8×8
	// avgpool = average(relu, adaptive [1,1]) # 16×1×1
	// flatten = flatten(avgpool)              # 16
	// fc      = linear(flatten, 16→10)        # 10, output, head
}
