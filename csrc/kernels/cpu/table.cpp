// This level's table: each slot is the function of the same name in this namespace.
#include "kernel_table.h"

namespace tw::TW_ISA {

#define X(name, Args) void name(const Args&);
TW_ALL_KERNELS
#undef X

#define TW_STRING_(s) #s
#define TW_STRING(s) TW_STRING_(s)
extern const KernelTable kernel_table;
const KernelTable kernel_table = {"cpu_" TW_STRING(TW_ISA),
#define X(name, Args) &name,
                                  TW_ALL_KERNELS
#undef X
};

}  // namespace tw::TW_ISA
