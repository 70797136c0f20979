#!/bin/sh
# Keep common/rallypoint/v1 what protos/ says.
#
#   tools/proto.sh write    regenerate it
#   tools/proto.sh check    fail if regenerating would change it
set -eu
cd "$(dirname "$0")/.."

package=rallypoint/v1
committed=common/$package
bin=$PWD/.venv-proto/bin
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

cd protos
"$bin/python" -m grpc_tools.protoc --proto_path=. \
    --plugin="protoc-gen-mypy=$bin/protoc-gen-mypy" \
    --python_out="$fresh" --mypy_out=quiet:"$fresh" \
    $package/*.proto

# Only the files that define a service: for the others the plugin writes empty modules.
"$bin/python" -m grpc_tools.protoc --proto_path=. \
    --plugin="protoc-gen-mypy_grpc=$bin/protoc-gen-mypy_grpc" \
    --grpc_python_out="$fresh" --mypy_grpc_out=quiet:"$fresh" \
    $(grep -l '^service ' $package/*.proto)
cd ..

case ${1-} in
write)
    # What is not generated any more goes too: a deleted .proto leaves nothing behind.
    rm -f $committed/*_pb2.py* $committed/*_pb2_grpc.py*
    cp "$fresh/$package"/* $committed/
    ;;
check)
    diff -ru --exclude=__init__.py --exclude=__pycache__ $committed "$fresh/$package" || {
        echo "$committed is not what protos/ says: run 'make proto' and commit the result" >&2
        exit 1
    }
    ;;
*)
    echo "usage: tools/proto.sh write|check" >&2
    exit 2
    ;;
esac
