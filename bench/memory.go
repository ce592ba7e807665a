//go:build !linux

package main

func peakMemory(f func()) float64 { f(); return 0 }
