#!/bin/bash
# Kills counters and registers, processes of their own, before each numbered store of their lives and at random moments,
# and checks that every request took effect exactly once. Ends with status 1 if one did not.
#
#   eng/journal-kills.sh [KILLS [SEED]]     10,000 kills when nothing is said
set -eu
cd "$(dirname "$0")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
dotnet publish tests/Outboard.JournalKills -c Release -r linux-x64 -p:OutboardAot=true -o artifacts/journal-kills -v quiet >&2
exec artifacts/journal-kills/Outboard.JournalKills run "${1:-10000}" "${2:-1}"
