#!/usr/bin/env bash
# Builds the ahead-of-time compiled program into artifacts/aot, from the same sources, by the opt-in net9.0 leg.
set -eu
cd "$(dirname "$0")/.."
exec dotnet publish tools/Outboard.Cli -c Release -r linux-x64 -p:OutboardAot=true -o artifacts/aot
