# gpio.sh - drives the GPIO card with Linux' own driver: 16 outputs, and 16 inputs that are wired to them.
set -e
modprobe gpio-pci-idio-16
device=$(basename /sys/bus/pci/drivers/*idio-16/0000:*)
for chip in /sys/class/gpio/gpiochip*; do
  [ "$(cat "$chip/ngpio")" != 32 ] || base=$(cat "$chip/base")
done
[ -n "$base" ]

# the driver names its lines
for pin in 0 3 7 8 15; do
  output=/sys/class/gpio/OUT$pin input=/sys/class/gpio/IIN$pin
  echo $((base + pin)) > /sys/class/gpio/export
  echo $((base + 16 + pin)) > /sys/class/gpio/export
  for value in 1 0 1; do
    echo $value > $output/value
    [ "$(cat $output/value)" = $value ]
    [ "$(cat $input/value)" = $value ]
  done
done
echo "pins: ok"

# an input that changes interrupts; the line is level-triggered and shared by rule of PCI
count() { awk '/idio-16|'"$device"'/ { n += $2 } END { print n + 0 }' /proc/interrupts; }
echo both > /sys/class/gpio/IIN3/edge
before=$(count)
for value in 0 1 0 1; do
  echo $value > /sys/class/gpio/OUT3/value
  cat /sys/class/gpio/IIN3/value > /dev/null
done
sleep 1
after=$(count)
cat /proc/interrupts
echo "interrupts: $before -> $after"
[ "$after" -gt "$before" ]
[ "$after" -lt $((before + 100)) ]
