package xdpprog

// WithoutKernCtx has programs loaded as on a kernel that has not what they look at
// its own sk_buff by. It returns what undoes that.
func WithoutKernCtx() (undo func()) {
	was := haveKernCtx
	haveKernCtx = func() bool { return false }
	return func() { haveKernCtx = was }
}
