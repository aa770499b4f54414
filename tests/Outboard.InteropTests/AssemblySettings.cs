// AssemblySettings.cs - the tests run one after another: each test machine keeps the processors busy by itself. Two at
// a time took two thirds of the time, and lost a test now and then: most of them to QEMU 11.1, which ended itself when
// an appliance's device was started anew (memory_region_get_fd below vhost_dev_start: see PciAccess, which avoids it).
[assembly: Xunit.CollectionBehavior(DisableTestParallelization = true)]
