package subnet

// Size returns the number of entries of the index.
func (c *Claims) Size() int {
	return len(c.subnets.first) + len(c.subnets.others) + len(c.keys.first) + len(c.keys.others)
}
