import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np

from onnxopt.kernels.compilation import kernel

SOURCE = "def double(x):\n    for i in range(x.size):\n        x[i] *= 2\n"


def test_importing_the_kernels_does_not_import_numba():
    code = "import sys, onnxopt.kernels, onnxopt.calibration.methods; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_where_no_cache_folder_can_be_found_a_kernel_still_runs():
    namespace = {}
    exec(compile(SOURCE, "<no such file>", "exec"), namespace)
    x = np.ones(3)
    kernel()(namespace["double"])(x)
    assert x.tolist() == [2, 2, 2]


def test_where_the_cache_folder_cannot_be_written_a_kernel_still_runs(tmp_path):
    file = tmp_path / "double_kernel.py"
    file.write_text(SOURCE)
    spec = spec_from_file_location("double_kernel", file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    double = kernel()(module.double)
    assert double._compiled.stats.cache_path == str(tmp_path / "__pycache__")
    shutil.rmtree(tmp_path / "__pycache__")
    (tmp_path / "__pycache__").write_text("a file where numba wants its folder")
    x = np.ones(3)
    double(x)
    assert x.tolist() == [2, 2, 2]
    double(x)
    assert x.tolist() == [4, 4, 4]


def test_a_kernel_keeps_the_name_and_the_text_of_its_function():
    @kernel()
    def half(x):
        """Halve."""
        return x / 2

    assert (half.__name__, half.__doc__) == ("half", "Halve.")
    assert half(3.0) == 1.5
