//go:build !linux

package main

func peakMemory(f func()) float64 { f(); return 0 }

func cpuSeconds() float64 { return 0 }
