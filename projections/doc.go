// Package projections folds the events of the log into the views: everything
// the server knows. It knows what events mean, and nothing of disks being
// synced, clocks, chance or the network.
package projections
