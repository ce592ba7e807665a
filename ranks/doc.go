// Package ranks says how ranks are chosen and chooses them: the one grammar of the
// program's --rank and --budget, and the engine behind it.
//
//	R[,S[,T]]    the same ranks in every layer (also written fixed=R[,S[,T]])
//	vbmf         what variational Bayes tells from noise (package vbmf)
//	energy=E     the least ranks that keep a share E of each layer's squared norm
//	error=E      the least ranks of a relative error of at most E: energy=1−E²
//	ratio=Q      the best ranks with at most a share Q of each layer's weights
//	params=V     a budget of parameters for all layers together
//	macs=V       a budget of multiply-accumulates
//	ms=V         a budget of milliseconds for one image
//
// [Parse] reads a rule, and names those that its caller can serve where it is given
// another. [Spectra] has the ranks of a layer by energy, by variational Bayes or by ratio,
// all from the singular values of its matrices; [Allocate] spreads a budget over layers.
package ranks
