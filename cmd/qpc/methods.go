package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"quicprochat/rpc"
)

type methodsCommand struct{}

// methodRow is one line of qpc methods --json.
type methodRow struct {
	ID      uint16 `json:"id"`
	Name    string `json:"name"`
	Auth    string `json:"auth"`
	Mutates bool   `json:"mutates"`
	Retry   string `json:"retry"`
}

// Run lists the method table; it asks no server.
func (methodsCommand) Run(a *app) error {
	if a.JSON {
		encoder := json.NewEncoder(a.stdout)
		for _, method := range rpc.Methods() {
			if err := encoder.Encode(rowOf(method)); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tAUTH\tMUTATES\tRETRY")
	for _, method := range rpc.Methods() {
		row := rowOf(method)
		mutates := "-"
		if row.Mutates {
			mutates = "yes"
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\n", row.ID, row.Name, row.Auth, mutates, row.Retry)
	}
	return table.Flush()
}

func rowOf(method *rpc.Method) methodRow {
	return methodRow{
		ID: method.ID, Name: method.Name, Auth: method.Rule.GetAuth().String(),
		Mutates: method.Rule.GetMutates(), Retry: method.Rule.GetRetry().String(),
	}
}
