//go:build !amd64 || noasm || purego || !gc

package gemm

func best32() *kernel[float32] { return portable[float32]() }
func best64() *kernel[float64] { return portable[float64]() }

// candidates32 lists the kernels that this machine can run, best first.
func candidates32() []*kernel[float32] { return []*kernel[float32]{portable[float32]()} }

// candidates64 lists the kernels that this machine can run, best first.
func candidates64() []*kernel[float64] { return []*kernel[float64]{portable[float64]()} }
