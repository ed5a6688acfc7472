// The standard library's headers that host_cuda.h needs: tests/host_kernels.py compiles them once.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include <barrier>
#include <thread>
#else
#include <ucontext.h>

#include <cstdlib>
#include <memory>
#endif

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
