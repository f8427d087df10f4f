// Package denied tells which packets the policy denies, and by which of its lines.
//
//	r := denied.NewRecorder(group, file, log)   // in the agent
//	r.Know(denied.Facts{Policy: …, …})
//	err := r.Run(ctx, func() { … })
//
//	err := file.Follow(ctx, 50, func(e denied.Entry) error { … })   // in any other process
//
// The kernel says only that a packet was denied: a prefix for each line would cost a chain for each, on the packets' way.
// Why it was denied is found out here, by the evaluator, from the policy in force. What is found goes to the log, and to a
// file of a bounded size that any number of readers follow.
//
// Be aware: the recorder takes a hundred packets in a second at most, and tells how many more there were. A packet that
// was denied by a policy just replaced is judged by the new one. Rules that log for themselves (log: true) are told too,
// also those that allow. A connection that is tried again and again is told each time. The time is the one when a packet was
// read: in a flood some seconds after it came.
package denied
