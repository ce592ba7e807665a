package zoo

import (
	"fmt"

	"github.com/lowrank-go/lowrank/graph"
)

// asppName is before the names of DeepLab's pyramid.
const asppName = classifier + "0."

// pyramid lists the dilations of DeepLab's pyramid, for features an eighth as large as
// images. Nothing in a state dict tells them.
var pyramid = []int{12, 24, 36}

// deepLab adds the head of DeepLabV3 (Chen et al. 2017) as torchvision has it: a
// convolution of one pixel, dilated ones and the mean of all pixels, side by side, before
// two more convolutions. The logits are resized to the input's size.
func (b *builder) deepLab(x, input *graph.Node) {
	const width = 256
	one := square(width, 1, 1, 0)
	parts := []*graph.Node{b.unit(asppName+"convs.0", x, one, 1e-5, relu)}
	for i, d := range pyramid {
		parts = append(parts, b.unit(fmt.Sprintf("%sconvs.%d", asppName, i+1), x, square(width, 3, 1, d).dilated(d), 1e-5, relu))
	}
	name := fmt.Sprintf("%sconvs.%d", asppName, len(pyramid)+1)
	mean := b.adaptive(name+".0", x, 1)
	mean = b.conv(name+".1", mean, one)
	mean = b.norm(name+".2", mean)
	mean = b.relu(name+".3", mean)
	parts = append(parts, b.add(name+".resize", &graph.Resize{}, b.channels[mean], mean, x))
	x = b.concat(asppName+"concat", parts...)
	x = b.unit(asppName+"project", x, one, 1e-5, relu)
	x = b.dropout(asppName+"project.3", x, .5)
	x = b.conv(classifier+"1", x, square(width, 3, 1, 1))
	x = b.norm(classifier+"2", x)
	x = b.relu(classifier+"3", x)
	b.pixelClasses(headName, x, input, b.classes)
}
