//go:build !(amd64 && gc && !noasm && !purego)

package nhwc

const accelerated = false

func runTile(int, *tile) { panic("nhwc: no kernels") }

func runDepthwise(int, *depthwise) { panic("nhwc: no kernels") }

func runCorrelate(int, *correlation) { panic("nhwc: no kernels") }

func runCorrelateDepthwise(int, *correlation) { panic("nhwc: no kernels") }

func runTransform(int, *transform) { panic("nhwc: no kernels") }

func runTranspose16(dst, src *float32) { panic("nhwc: no kernels") }

func runDepthwiseRows(*depthwise) { panic("nhwc: no kernels") }

func runPointwise(int, *pointwise) { panic("nhwc: no kernels") }
