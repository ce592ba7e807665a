// Package dataset reads labelled images and makes network inputs of them: the
// binary files of CIFAR-10 and CIFAR-100, the IDX files of MNIST and its kin,
// and folders or zip archives with one folder of image files a class; and
// it draws images where there are none. Use it to train, calibrate or evaluate an image classifier without converting the
// data first. CIFAR and IDX files are held in memory as bytes (3 KB an image of
// CIFAR, 184 MB for all of it); of a folder or archive only the list of names is
// held, and an image is decoded each time it is asked for (about 1.5 ms of one
// core for a 256×256 JPEG).
//
// # From files to batches
//
// [Open] gives a [Set], which is random access to images of 8 bits and their
// labels. [Preprocess] says how an image becomes an input; it is part of what a
// trained network needs to be told, so it travels with the network as JSON.
// [Batches] runs over a set in order, decoding ahead on other goroutines:
//
//	set, err := dataset.Open("folder:photos.zip", dataset.Options{})
//	if err != nil {
//		return err
//	}
//	defer dataset.Close(set)
//	for b, err := range dataset.Batches(ctx, set, dataset.ImageNet, 64, 0) {
//		if err != nil {
//			return err
//		}
//		// b.X is len(b.Labels)×b.H×b.W×3, float32.
//	}
//
// To train, [TrainBatches] takes an order of the images, which the caller
// shuffles, and an [Augment], which shifts, mirrors or cuts them at random.
//
// # What lies in a directory
//
// A specification is KIND:PATH, or a bare PATH whose kind shows in what lies
// there:
//
//	cifar10:DIR      data_batch_*.bin (train), test_batch.bin (test), batches.meta.txt
//	cifar100:DIR     train.bin, test.bin, fine_label_names.txt; the labels are the fine ones
//	idx:DIR          *train*images*idx3*, *t10k*images*idx3* (or *test*) and their labels, also .gz
//	folder:DIR       one folder a class
//	folder:FILE.zip  the same in an archive, read in place
//	pairs:DIR        images/NAME.jpg or .png with masks/NAME.png; also pairs:FILE.zip
//	glyphs:TASK      drawn images, no path; see below
//
// Classes of folders: the class of an image is the folder that it lies in. Folders
// that all others lie in are left off. Where one of the folders that remain has
// images and others further folders, each is a class with all that lies in it, as
// torchvision's ImageFolder has it; where all images lie deeper (alphabet/character)
// each folder is a class of its own, called by its path. Classes are sorted by
// name in byte order and numbered from 0; but where all names are decimal
// numbers, the number is the label, so that a sample of some of ImageNet's
// classes (0000, 0002, …) keeps ImageNet's labels. If everything lies in folders
// called train and test (or val, valid, validation), the split chooses between
// them; a class cannot be called that. Names that begin with a dot, __MACOSX and
// files other than .jpg, .jpeg, .png, .gif, .bmp, .tif, .tiff and .webp are passed over,
// and images of other formats are named by the set's name; a folder that holds
// nothing else is an error, because a missing class would renumber the others.
// Links to files are followed, links to folders are not.
//
// Folders without such parts are divided by an option after the path:
// folder:DIR,holdout=0.25 gives three quarters of every class for training and
// one quarter for testing, the same ones whenever it is opened;
// folder:DIR,holdout=0.25,seed=3 others. (Omniglot's archives, whose characters
// are drawn twenty times each, become a set to train and test on in this way.) A
// path that exists with all that in its name is taken as it is.
//
// Pairs are a [Segmented] set. A mask is a PNG file of at most 8 bits of the size
// of its image whose grey levels, or whose numbers in a palette, are the classes
// of the pixels; 255 is [Ignore]. The classes' names, a line each, are in
// classes.txt beside images; without it, pairs:DIR,classes=21 says how many there
// are. Folders within images have their like within masks; train and test above
// them, and holdout, work as for folders. The label of an image is 0.
//
// # Drawn images
//
// glyphs:TASK needs no files. Its images have 32×32 pixels in colour and are hard
// enough to train small networks on: 12 fonts of the Go family, turned, sheared,
// bent, in any colours, some of them hardly apart, on patterns, among strokes and
// parts of other symbols, blurred and noisy.
//
//	glyphs:letters    A to Z
//	glyphs:lowercase  a to z
//	glyphs:digits     0 to 9
//	glyphs:shapes     ten geometric figures at any angle
//	glyphs:textures   ten patterns
//	glyphs:inverted   A to Z in another style: outlined, cut out of a plate, embossed
//	glyphs:segments   letters, digits and figures together; a [Segmented] set
//
// Options follow the task: glyphs:letters,train=50000,test=5000,seed=3. Without
// them there are 20,000 training images and 2,000 test images of seed 0. Image i
// is a function of the task, the seed, the split and i alone, equal on every
// machine, and drawn when asked for (about 0.13 ms of one core). Classes take
// turns. Splits and seeds share no image. [Glyphs] is the fitting Preprocess.
//
// # Damaged and hostile files
//
// Every error names the file, and the entry or record in it, and wraps one of
// the package's Err values. Sizes are checked before memory is taken: an image
// file may have 64 MiB and 64 Mi pixels, a CIFAR or IDX file 1 GiB after
// decompression. Nothing is ever written to disk.
package dataset
