#!/usr/bin/env bash
. "$(dirname "$0")/env.sh"; lab "$@"
