# THE table of CPU levels: level -> vector width in bytes -> compiler flags. Each row compiles every file of
# csrc/kernels/cpu once, into an OBJECT library, inside namespace tw::<level>.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(TW_LEVELS
    "scalar|16|"                         # the wheel's baseline: SSE2
    "avx2|32|-march=x86-64-v3"
    "avx512|64|-march=x86-64-v4 -mprefer-vector-width=512")
else()
  set(TW_LEVELS "scalar|16|")            # the baseline of the platform (NEON on arm64)
endif()

file(GLOB TW_KERNEL_SOURCES CONFIGURE_DEPENDS csrc/kernels/cpu/*.cpp)
set(TW_LEVEL_NAMES "")
set(TW_KERNEL_OBJECTS "")
foreach(row IN LISTS TW_LEVELS)
  string(REPLACE "|" ";" row "${row}")
  list(GET row 0 level)
  if(TILEWRIGHT_LEVELS AND NOT level IN_LIST TILEWRIGHT_LEVELS)
    continue()
  endif()
  list(GET row 1 bytes)
  list(GET row 2 flags)
  separate_arguments(flags)
  add_library(kernels_${level} OBJECT ${TW_KERNEL_SOURCES})
  target_compile_definitions(kernels_${level} PRIVATE TW_ISA=${level} TW_VEC_BYTES=${bytes})
  # -O3 for the kernels' loops; errno and traps are never read, and both would stop vectorisation. Not -ffast-math:
  # NaN, infinities and the order of sums are part of each kernel's contract, and a fused multiply-add is written
  # where it is meant (fma), so that the same source rounds the same way wherever it is inlined. Integers wrap.
  target_compile_options(kernels_${level} PRIVATE -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off -fwrapv
                         -fno-exceptions -fno-rtti -Wno-psabi ${flags})
  list(APPEND TW_LEVEL_NAMES ${level})
  list(APPEND TW_KERNEL_OBJECTS $<TARGET_OBJECTS:kernels_${level}>)
  # A weak symbol compiled with one level's flags could be linked into another's code, and crash an older machine.
  add_custom_target(symbols_${level} ALL
    COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} -DLEVEL=${level} "-DOBJECTS=$<TARGET_OBJECTS:kernels_${level}>"
            -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/check_symbols.cmake
    DEPENDS kernels_${level} $<TARGET_OBJECTS:kernels_${level}> COMMAND_EXPAND_LISTS VERBATIM)
endforeach()
list(TRANSFORM TW_LEVEL_NAMES REPLACE "(.+)" "X(\\1)" OUTPUT_VARIABLE TW_LEVEL_ROWS)
list(JOIN TW_LEVEL_ROWS " " TW_LEVEL_ROWS)
file(CONFIGURE OUTPUT generated/cpu_levels.h @ONLY
     CONTENT "#define TW_CPU_LEVELS(X) @TW_LEVEL_ROWS@  // from cmake/cpu_isa.cmake\n")
