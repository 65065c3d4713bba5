package main

// ownAs does nothing: files here belong to the directory's owner by inheritance.
func ownAs(string, string) error { return nil }
