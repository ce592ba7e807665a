package conv

import (
	"github.com/lowrank-go/lowrank/internal/nhwc"
	"github.com/lowrank-go/lowrank/internal/parallel"
)

const (
	// Winograd's transforms cost as much as products with about so many
	// channels would; with fewer the definition is faster.
	winogradChannels = 16
	// With fewer tiles than this the weights' transform takes longer than the
	// multiplications that are saved.
	winogradTiles = 4
	// The same where vectors are wide and the weights, manyWeights of them or more,
	// are transformed each time: the definition's products gain more from the width.
	winogradTilesWide = 8
)

// winograd reports whether a pass over n maps of h×w outputs runs by Winograd's
// method.
func (l *Layer) winograd(n, h, w int) bool {
	if !Fast(l.kernel.Shape, l.kernel.Geometry) {
		return false
	}
	// Tiles stick out of small maps: the multiplications must be less than two
	// thirds of the definition's.
	tiles := tilesOf(h) * tilesOf(w)
	least := winogradTiles
	if nhwc.Wide() && l.kernel.Shape[0]*l.kernel.Shape[1] >= manyWeights {
		least = winogradTilesWide
	}
	return n*tiles >= least && 3*tiles*nhwc.WinogradProducts < 2*h*w*9
}

// Fast tells whether a convolution is of the kind that Winograd's method serves, with
// a quarter of the multiplications, on maps that are not too small.
func Fast(shape [4]int, g Geometry) bool {
	g = g.Normal()
	return shape[2] == 3 && shape[3] == 3 && g.Stride == [2]int{1, 1} && g.Dilation == [2]int{1, 1} && g.Groups == 1 &&
		g.Padding[0] <= 2 && g.Padding[1] <= 2 && min(shape[0], shape[1]) >= winogradChannels
}

func tilesOf(n int) int { return (n + nhwc.WinogradTile - 1) / nhwc.WinogradTile }

// line is the values of a cache line. Distances are kept away from multiples of
// the caches' sizes by one of them.
const line = 16

// transformed is the distance between the 36 products' weights.
func transformed(ins, panels int) int { return ins*panels*nhwc.Panel + line }

// transformWeights transforms panels of 3×3 weights to 36 matrices of panels,
// transformed apart.
func transformWeights(dst, weight []float32, ins, panels, workers int) []float32 {
	n := ins * nhwc.Panel
	step := transformed(ins, panels)
	dst = grow(dst, nhwc.WinogradProducts*step)
	parallel.For(workers, panels, func(p int) {
		nhwc.WinogradWeight(n, weight[p*9*n:], nhwc.Square{Row: 3 * n, Column: n}, dst[p*n:], step)
	})
	return dst
}

// winograd is a 3×3 convolution of stride 1 by Winograd's method; see
// internal/nhwc for the mathematics.
type winograd struct {
	ins, outs int
	pad       [2]int
	weight    []float32 // panels of 3×3 weights
	bias      []float32 // for every output of every panel
	// transformed is those of transformWeights, or nil: they are four times the
	// weights, and where there are many weights and few tiles it takes less time
	// to compute them, a panel at a time, than to read them.
	transformed []float32
}

// once reports whether weights are to be transformed as they are needed.
func (w *winograd) once(dst *Map) bool {
	return w.ins*w.outs >= manyWeights && dst.N*tilesOf(dst.H)*tilesOf(dst.W) <= mostTiles
}

// Sizes of a block of tiles, whose transforms should stay in a core's cache
// while there are enough of them for the weights that must be read for each.
const (
	blockBytes   = 1 << 20
	fewestTiles  = 24
	mostTiles    = 96
	gradientWork = 128 // tiles of a block for the weights' gradient
	manyWeights  = 1 << 17
)

// pitch is the distance of pixels of c channels whose vectors are whole.
func pitch(c int) int {
	c = (c + 7) &^ 7
	if c >= 64 {
		c += 8 // keep pixels from sharing a set of the cache
	}
	return c
}

// run computes the convolution of x into dst. Every output is one sum in one
// order, so the blocks may depend on anything.
func (w *winograd) run(dst, x *Map, e Epilogue, workers int) {
	tiles := dst.N * tilesOf(dst.H) * tilesOf(dst.W)
	t := blockBytes / (4 * nhwc.WinogradProducts * (w.ins + w.outs))
	t = min(max(t, fewestTiles), mostTiles)
	blocks := (tiles + t - 1) / t
	if w.transformed == nil {
		blocks = 1
	} else if blocks < 4*workers {
		blocks = (blocks + workers - 1) / workers * workers
	}
	// Equal blocks, of full tiles of the product.
	t = (tiles + blocks - 1) / blocks
	tile := nhwc.Tile()
	t = (t + tile - 1) / tile * tile
	blocks = (tiles + t - 1) / t
	if blocks >= workers && w.transformed != nil {
		parallel.For(workers, blocks, func(i int) { w.block(dst, x, e, i*t, min((i+1)*t, tiles), 1) })
		return
	}
	for i := range blocks {
		w.block(dst, x, e, i*t, min((i+1)*t, tiles), workers)
	}
}

// block computes tiles [from,to), counted along rows, images and the batch.
func (w *winograd) block(dst, x *Map, e Epilogue, from, to, workers int) {
	n := to - from
	panels := (w.outs + nhwc.Panel - 1) / nhwc.Panel
	vPitch, mPitch := pitch(w.ins), panels*nhwc.Panel
	vStep, mStep := n*vPitch+line, n*mPitch+line
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.sums = grow(s.sums, nhwc.WinogradProducts*(vStep+mStep))
	v, m := s.sums[:nhwc.WinogradProducts*vStep], s.sums[nhwc.WinogradProducts*vStep:]

	pieces(workers, n, func(a, b int, s *scratch) {
		s.patches(x, dst.H, dst.W, from+a, from+b, w.pad, v[a*vPitch:], vPitch, vStep)
	})
	s.zeros = grow(s.zeros, mPitch)
	zeros := s.zeros
	p := nhwc.Product{Pixel: vPitch, Offsets: origin, Length: w.ins, OutPixel: mPitch}
	depth := w.ins * nhwc.Panel
	if w.transformed == nil {
		parallel.For(workers, panels, func(j int) {
			s := scratches.Get().(*scratch)
			defer scratches.Put(s)
			step := depth + line
			s.sums = grow(s.sums, nhwc.WinogradProducts*step)
			nhwc.WinogradWeight(depth, w.weight[j*9*depth:], nhwc.Square{Row: 3 * depth, Column: depth}, s.sums, step)
			for k := range nhwc.WinogradProducts {
				s.run.Run(&p, n, v[k*vStep:], s.sums[k*step:], zeros, m[k*mStep+j*nhwc.Panel:], nil, nhwc.Panel)
			}
		})
	} else {
		parallel.For(workers, nhwc.WinogradProducts, func(k int) {
			s := scratches.Get().(*scratch)
			defer scratches.Put(s)
			s.run.Run(&p, n, v[k*vStep:], w.transformed[k*transformed(w.ins, panels):], zeros, m[k*mStep:], nil, mPitch)
		})
	}
	pieces(workers, n, func(a, b int, s *scratch) {
		for i := a; i < b; i++ {
			w.output(s, dst, e, from+i, m[i*mPitch:], mStep)
		}
	})
}

var origin = []int{0}

// pieces divides [0,n) among the workers.
func pieces(workers, n int, f func(a, b int, s *scratch)) {
	size := (n + workers - 1) / workers
	parallel.For(workers, (n+size-1)/size, func(i int) {
		s := scratches.Get().(*scratch)
		defer scratches.Put(s)
		f(i*size, min((i+1)*size, n), s)
	})
}

// tileAt is the image of tile i of a batch of h×w maps, and its first row and
// column.
func tileAt(i, h, w int) (img, y, x int) {
	across, down := tilesOf(w), tilesOf(h)
	return i / across / down, i / across % down * nhwc.WinogradTile, i % across * nhwc.WinogradTile
}

// patches transforms the inputs of tiles [from,to) of h×w outputs to v, each pitch
// values after the last.
func (s *scratch) patches(x *Map, h, w, from, to int, pad [2]int, v []float32, pitch, step int) {
	for from < to {
		img, y, left := tileAt(from, h, w)
		n := min((w-left+nhwc.WinogradTile-1)/nhwc.WinogradTile, to-from) // tiles of a row
		top := y - pad[0]
		image := x.Data[img*x.H*x.W*x.C : (img+1)*x.H*x.W*x.C]
		done := 0
		for done < n && nhwc.WinogradInputAt(x.C, image, x.H, x.W, top, left+done*nhwc.WinogradTile-pad[1], v[done*pitch:], step) {
			done++
		}
		if done == n {
		} else if top >= 0 && top+nhwc.WinogradPatch <= x.H || x.C%8 != 0 {
			for i := done; i < n; i++ {
				s.patch(x, h, w, from+i, pad, v[i*pitch:], step)
			}
		} else {
			// They all have to be copied, and overlap.
			width := n*nhwc.WinogradTile + nhwc.WinogradPatch - nhwc.WinogradTile
			s.padded = grow(s.padded, nhwc.WinogradPatch*width*x.C)
			cut(s.padded, width, x, image, 0, x.C, top, left-pad[1], nhwc.WinogradPatch, width)
			for i := range n {
				nhwc.WinogradInput(x.C, s.padded[i*nhwc.WinogradTile*x.C:], nhwc.Square{Row: width * x.C, Column: x.C}, v[i*pitch:], step)
			}
		}
		from += n
		v = v[min(n*pitch, len(v)):]
	}
}

// patch transforms the inputs of tile i of h×w outputs.
func (s *scratch) patch(x *Map, h, w, i int, pad [2]int, v []float32, step int) {
	img, y, left := tileAt(i, h, w)
	p, n, at := s.square(x, img, y-pad[0], left-pad[1], nhwc.WinogradPatch, 8)
	nhwc.WinogradInput(n, p, at, v, step)
}

// square is the size×size pixels of an image of x from (top, left) on, zeros
// where that is outside, and zero channels up to a multiple: the values, the
// number of channels and the layout.
func (s *scratch) square(x *Map, img, top, left, size, multiple int) ([]float32, int, nhwc.Square) {
	n := (x.C + multiple - 1) / multiple * multiple
	image := x.Data[img*x.H*x.W*x.C : (img+1)*x.H*x.W*x.C]
	if n == x.C && top >= 0 && left >= 0 && top+size <= x.H && left+size <= x.W {
		return image[(top*x.W+left)*x.C:], n, nhwc.Square{Row: x.W * x.C, Column: x.C}
	}
	s.padded = grow(s.padded, size*size*n)
	at := nhwc.Square{Row: size * n, Column: n}
	if n == x.C {
		cut(s.padded, size, x, image, 0, n, top, left, size, size)
		return s.padded, n, at
	}
	for i := range size {
		for j := range size {
			pixel := s.padded[i*at.Row+j*at.Column:][:n]
			y, x0 := top+i, left+j
			if y < 0 || y >= x.H || x0 < 0 || x0 >= x.W {
				clear(pixel)
				continue
			}
			copy(pixel, image[(y*x.W+x0)*x.C:][:x.C])
			clear(pixel[x.C:])
		}
	}
	return s.padded, n, at
}

// output transforms the products of tile i to outputs.
func (w *winograd) output(s *scratch, dst *Map, e Epilogue, i int, m []float32, step int) {
	img, y, x := tileAt(i, dst.H, dst.W)
	at := ((img*dst.H+y)*dst.W + x) * dst.C
	rows, columns := min(dst.H-y, nhwc.WinogradTile), min(dst.W-x, nhwc.WinogradTile)
	if dst.C%8 == 0 && rows == nhwc.WinogradTile && columns == nhwc.WinogradTile {
		var residual []float32
		if e.Residual != nil {
			residual = e.Residual.Data[at:]
		}
		nhwc.WinogradOutput(dst.C, m, step, dst.Data[at:], nhwc.Square{Row: dst.W * dst.C, Column: dst.C}, w.bias, residual, e.ReLU)
		return
	}
	n := (dst.C + 7) &^ 7
	s.padded = grow(s.padded, nhwc.WinogradTile*nhwc.WinogradTile*n)
	nhwc.WinogradOutput(n, m, step, s.padded, nhwc.Square{Row: nhwc.WinogradTile * n, Column: n}, w.bias, nil, e.ReLU && e.Residual == nil)
	for r := range rows {
		for c := range columns {
			o := at + (r*dst.W+c)*dst.C
			out, sums := dst.Data[o:o+dst.C], s.padded[(r*nhwc.WinogradTile+c)*n:]
			if e.Residual == nil {
				copy(out, sums)
			} else {
				addResidual(out, sums, e.Residual.Data[o:], e.ReLU)
			}
		}
	}
}
