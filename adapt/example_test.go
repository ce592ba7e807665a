package adapt_test

import (
	"fmt"
	"log"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo/letters"
)

// One network in memory, and a task chosen while the program runs.
func ExampleTasks() {
	net, err := letters.Net()
	if err != nil {
		log.Fatal(err)
	}
	base, err := net.StateDict()
	if err != nil {
		log.Fatal(err)
	}
	// Adapters usually come from files (peft.Read); these have not been trained.
	var files []*peft.File
	for name, classes := range map[string]int{"digits": 10, "shapes": 6} {
		n, err := adapt.New(net, adapt.Options{Method: "cp", Classes: classes})
		if err != nil {
			log.Fatal(err)
		}
		f, err := n.File(base, name)
		if err != nil {
			log.Fatal(err)
		}
		files = append(files, f)
	}
	file, err := adapt.Stack(base, files...)
	if err != nil {
		log.Fatal(err)
	}
	tasks, err := adapt.NewTasks(net, file, false)
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"digits", "shapes", "digits"} {
		n, err := tasks.Switch(name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(name, n.Classes())
	}
	// Output:
	// digits 10
	// shapes 6
	// digits 10
}
