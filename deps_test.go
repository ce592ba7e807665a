package lowrank_test

import (
	_ "github.com/james-bowman/sparse"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/spf13/cobra"
	_ "golang.org/x/image/draw"
	_ "golang.org/x/sys/cpu"
	_ "golang.org/x/term"
	_ "gonum.org/v1/gonum/mat"
	_ "gorgonia.org/tensor"
	_ "pgregory.net/rapid"
)
