package conv

import (
	"sync"

	"github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

// derived is what a layer computes from its weights when it is first needed.
type derived struct {
	mu    sync.Mutex
	ready [3]bool // transposed, forward, back
	transposed
	forward, back []float32 // Winograd's weights
}

// transposed is the weights of the backward pass, phase by phase, and its bias: that of
// the inputs, and zeros where a layer has none.
type transposed struct{ weight, bias []float32 }

func (d *derived) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = [3]bool{}
}

func (d *derived) backward(l *Layer, workers int) transposed {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready[0] {
		return d.transposed
	}
	d.ready[0] = true
	k := &l.kernel
	ins, outs := k.Shape[1], k.Out()/k.Groups
	panels := (ins + nhwc.Panel - 1) / nhwc.Panel
	size := k.Groups * panels * nhwc.Panel
	if l.depthwise {
		size = k.Groups
	}
	depth := outs // rows of a panel's tap
	if l.depthwise {
		depth = 1
	}
	if d.bias == nil {
		d.bias = make([]float32, size)
		d.weight = make([]float32, size*depth*k.Taps())
	}
	for i, b := range l.inputBias {
		at := i
		if !l.depthwise {
			at = i/ins*panels*nhwc.Panel + i%ins
		}
		d.bias[at] = b
	}
	var order []int // taps, phase by phase, and where each phase begins
	var phases [][2]int
	for fy := range k.Stride[0] {
		rows := k.phaseTaps(0, fy)
		for fx := range k.Stride[1] {
			begin := len(order)
			for _, ty := range rows {
				for _, tx := range k.phaseTaps(1, fx) {
					order = append(order, ty*k.Shape[3]+tx)
				}
			}
			phases = append(phases, [2]int{begin, len(order)})
		}
	}
	if l.depthwise {
		for i, tap := range order {
			copy(d.weight[i*size:(i+1)*size], l.weight[tap*size:])
		}
		return d.transposed
	}
	parallel.For(workers, k.Groups*panels, func(i int) {
		g, q := i/panels, i%panels
		channels := min(ins-q*nhwc.Panel, nhwc.Panel)
		for _, ph := range phases {
			n := ph[1] - ph[0]
			dst := d.weight[(ph[0]*size+i*n*nhwc.Panel)*outs:][:n*outs*nhwc.Panel]
			for _, tap := range order[ph[0]:ph[1]] {
				for t := 0; t < outs; t += nhwc.Panel {
					src := l.weight[(((g*l.panels+t/nhwc.Panel)*k.Taps()+tap)*ins+q*nhwc.Panel)*nhwc.Panel:]
					block := dst[:min(outs-t, nhwc.Panel)*nhwc.Panel]
					if channels == nhwc.Panel && len(block) == nhwc.Panel*nhwc.Panel {
						nhwc.Transpose(block, src)
						dst = dst[len(block):]
						continue
					}
					for c := range channels {
						row := src[c*nhwc.Panel:][:nhwc.Panel]
						for j := 0; j*nhwc.Panel+c < len(block); j++ {
							block[j*nhwc.Panel+c] = row[j]
						}
					}
					dst = dst[len(block):]
				}
			}
		}
	})
	return d.transposed
}

// forwardWinograd is the transformed weights of the forward pass.
func (d *derived) forwardWinograd(l *Layer, workers int) []float32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ready[1] {
		d.ready[1] = true
		d.forward = transformWeights(d.forward, l.weight, l.kernel.Shape[1], l.panels, workers)
	}
	return d.forward
}

// backwardWinograd is that of the backward pass; backward must have been called.
func (d *derived) backwardWinograd(l *Layer, workers int) []float32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ready[2] {
		d.ready[2] = true
		d.back = transformWeights(d.back, d.transposed.weight, l.kernel.Out(), len(d.bias)/nhwc.Panel, workers)
	}
	return d.back
}
