package main

func convs(o options) error { return nil }
