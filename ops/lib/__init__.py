"""What the scripts in ops/ and loadtests/ share: Python 3.11's standard library, nothing else.

render      fills placeholders in configuration files
wait        polls with a deadline
net         free ports, one HTTP request over TCP or a unix socket, metrics as numbers
process     a process by its id and start time: never another that got the same id
supervisor  starts roles and starts them again when they die
roles       what each role of the stack is: its command, its files, when it is ready
stack       the whole: up, down, rolling restart; kill and pause of each role
ground      what measurements stand on: servers on one core, in a folder that goes with them, the load on the other
scenarios   kinds of load with their servers, for flame graphs and the profile of the compiler
limits      the bounds of the program, as numbers
fast_motion rules, routes and scrapes with their times divided
cgroup      one core and one gigabyte for a command and all that it starts
"""
