// AssemblySettings.cs - the tests run one after another: each test machine keeps the processors busy by itself. Two at
// a time took two thirds of the time, and QEMU 11.1 did not always live through it: its device whose shared memory is
// mapped at run time dies now and then when it is started anew (memory_region_get_fd, below vhost_dev_start).
[assembly: Xunit.CollectionBehavior(DisableTestParallelization = true)]
