package lab

// Wrong is why a query can't be asked.
func (q *Query) Wrong() error { return q.err }
