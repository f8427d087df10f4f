// Package collect takes a snapshot: from a folder of files that ordinary tools wrote, or from this host by these tools.
//
//	host, err := collect.Read(os.DirFS("evidence"))
//	host, err := collect.Here(ctx, collect.Options{})
//	host, err := collect.Pasted(texts) // rules alone, as somebody pasted them
//	files, err := collect.Gather(ctx, collect.Options{}); err = collect.Write("evidence", files, false)
//
// All ways are one: what is taken from this host, and what was pasted, are the files of such a folder, and then they are read.
//
// Be aware: a snapshot of this host is of the network namespace of the calling operating system thread, and its parts are of
// moments that follow each other. It holds no environment and no command line of a container, but addresses, rules with their
// comments, and names of processes: what it tells is not for everybody.
package collect
