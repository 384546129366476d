/* An allreduce over TCP, timed: what MPI itself does with the fabric.
 *
 *   mpicc -O2 -o mpi_allreduce mpi_allreduce.c
 *   spraylab exec quick --hosts h1 -- mpirun --mca btl tcp,self ./mpi_allreduce 1000000 3
 *
 * mpirun runs on one host and starts a rank on each. Arguments: bytes (of floats), repetitions.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    int rank, ranks, wrong = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    int count = (argc > 1 ? atoi(argv[1]) : 1000000) / (int)sizeof(float);
    int repetitions = argc > 2 ? atoi(argv[2]) : 1;
    float *mine = malloc(count * sizeof *mine), *sum = malloc(count * sizeof *sum);
    if (count < 1 || repetitions < 1 || !mine || !sum) {
        fprintf(stderr, "usage: mpi_allreduce BYTES REPETITIONS, both positive\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    for (int i = 0; i < count; i++) mine[i] = (float)(rank + i % 7);
    for (int turn = 0; turn < repetitions; turn++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double started = MPI_Wtime();
        MPI_Allreduce(mine, sum, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        double mine_s = MPI_Wtime() - started, longest_s;
        MPI_Reduce(&mine_s, &longest_s, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
        for (int i = 0; i < count; i++) wrong |= sum[i] != (float)(ranks * (ranks - 1) / 2 + ranks * (i % 7));
        if (rank == 0)
            printf("allreduce of %zu bytes over %d ranks: %.3f s, busbw %.2f Mb/s\n", count * sizeof *mine, ranks,
                   longest_s, count * sizeof *mine * 8e-6 / longest_s * 2 * (ranks - 1) / ranks);
    }
    if (wrong) fprintf(stderr, "rank %d: the sums are wrong\n", rank);
    MPI_Finalize();
    return wrong;
}
