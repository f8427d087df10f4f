// Package tree reads the part of YAML that policies are written in, with the place of every word and comment.
//
// Parse gives the tree of one document and everything that is wrong with its syntax at once:
//
//	doc, list := tree.Parse("policy.yaml", source)
//	for key, value := range doc.Root.Pairs() { … }
//
// Read are block and flow mappings and lists, plain and quoted words on one line, comments, and a leading "---".
// Every text that is accepted means to any YAML parser what it means here; a test compares it with another one.
//
// Be aware: much of YAML is refused, each with a sentence: anchors, aliases, tags, merge keys, text over several lines,
// several documents, directives, tabs for indentation. So a tree is never larger than its source. Words are text: whether
// "on" or "80" is a truth value or a number is for the reader of the tree to say.
package tree
